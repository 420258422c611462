"""What holds for all tests."""

from hypothesis import HealthCheck, settings

from tests.store import postgres

server = postgres.server
pytest_terminal_summary = postgres.pytest_terminal_summary

# The suite gives the same answer each time; `--hypothesis-profile search` looks further, elsewhere at each run.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", settings.get_profile("suite"), derandomize=False, max_examples=2000)
settings.load_profile("suite")
