"""Extensions: what serves the agent or its components without being in a pipeline."""
