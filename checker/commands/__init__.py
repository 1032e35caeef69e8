"""What the commands do; ``checker.cli`` only parses and calls. Each module is imported by the command that needs it."""
