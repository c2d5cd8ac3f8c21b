"""What settings may be, which script takes which, and how flags and files change them."""
