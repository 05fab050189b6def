"""Workers: one candidate on one device, built and scored; and the pools that hold them."""
