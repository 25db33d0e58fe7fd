"""labgrid as the engine of rigs over several computers: resources, exporter, drivers, strategy, and the client.

Facts of labgrid 26: docs/rigs.md. Nothing here is imported unless it is used: labgrid is an extra.
"""
