"""Settings of the fuzz tests: the same cases at every run, and how to have other ones.

    python -m pytest tests/fuzz                                    # 3,030 cases, a minute on one core
    python -m pytest tests/fuzz --hypothesis-profile=thorough      # ten times as many, others each time

Each test says its number of cases by `@cases(NUMBER)`; together they are at least 2,000, which a test counts.
"""

from hypothesis import HealthCheck, settings

SHARED = {
    "deadline": None,  # `quickly` ends what hangs
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "database": None,
}
settings.register_profile("repeatable", derandomize=True, **SHARED)
settings.register_profile("thorough", print_blob=True, **SHARED)
settings.load_profile("repeatable")
