"""The shell: a module for each command, whose ``main`` takes the words after the command's name."""
