"""Services of the operating system: durable files, locks between processes, file permissions and forks."""
