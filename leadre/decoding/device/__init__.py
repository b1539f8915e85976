"""The path that stays on a GPU from the prompt to the ads.

Entered by `engine.DeviceEngine`.
"""
