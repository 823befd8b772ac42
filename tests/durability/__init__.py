"""Nothing that was acknowledged is lost: power cuts, kills, failing and full disks."""
