"""What all commands share: help with examples, hints for typing errors, how a command ends, completion."""
