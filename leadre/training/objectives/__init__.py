"""What a training minimises: next tokens, DPO, RRHF. LEADRE §4.3.1, §4.3.2."""
