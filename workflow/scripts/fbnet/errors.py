"""What is raised when the user's input is wrong, as against a fault of ours."""


class InputError(ValueError):
    """Wrong input from the user; its text is a sentence that names the key or file, the value and the fix."""
