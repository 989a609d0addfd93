"""Arrays to arrays: what is done to images, maps and masks. No model is known here."""
