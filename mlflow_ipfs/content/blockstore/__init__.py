"""Places that keep blocks: ``interface`` says what one must offer, the others are named by their medium."""
