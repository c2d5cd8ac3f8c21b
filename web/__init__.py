"""The pages that run in a browser and the server behind them."""
