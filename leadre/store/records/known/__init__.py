"""What was known of a user, and from when: writes of behaviors and impressions, and what summaries are made of them."""
