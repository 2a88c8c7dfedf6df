"""Names of the checks of ``check_detector``."""

CHECKS = [
    *("found", "steps_repeat", "own_loss", "own_detections", "random_stream", "columns", "state_dict", "copies"),
    *("removal", "steps_counted", "offers", "parts", "combinations", "prior", "memory", "autocast", "two_processes"),
]
