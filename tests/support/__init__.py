"""What several test files share: real processes, started and stopped within limits."""
