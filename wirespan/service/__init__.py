"""The service around the components: configuration, pipeline graph, life cycle, own telemetry, command line."""
