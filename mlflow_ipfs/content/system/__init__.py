"""What the system does for us: files written so that they last, locks between processes, and forks survived."""
