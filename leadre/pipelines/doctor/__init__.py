"""What is wrong with an installation, and what to do: one small function a question. Behind `leadre doctor`."""
