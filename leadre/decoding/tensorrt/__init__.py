"""Our trie and scores on TensorRT-LLM. LEADRE §4.4.2.

Entered by `engine.TensorrtEngine`.
"""
