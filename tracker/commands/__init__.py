"""Commands to devices: their ledger in Redis, their delivery, and the device registry."""
