"""What the values in config.py may be, which script takes which, and how flags and files change them."""
