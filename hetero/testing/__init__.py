"""The conformance kit and the simulators."""
