"""Find out how a network computes real-valued features: measures with what they can and cannot tell, a verdict, a page."""
