"""What the Lightning and the Keras callbacks share: the run log, the metrics collector, resources and latency.

No framework is imported here.
"""
