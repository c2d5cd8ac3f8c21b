"""The pages and the small server behind them."""
