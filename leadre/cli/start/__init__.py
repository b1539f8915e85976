"""The first commands of a newcomer: a project, the embedded servers, the demo."""
