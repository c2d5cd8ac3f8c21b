"""What train.py and the search are made of."""
