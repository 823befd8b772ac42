"""Our own engine for associations that bring objects: Storage and Verification, fast."""
