"""The commands of `ffd`, one file each, named like the command."""
