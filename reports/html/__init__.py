"""One self-contained HTML page from a dashboard: it works offline, in a sandboxed frame, printed and by keyboard."""
