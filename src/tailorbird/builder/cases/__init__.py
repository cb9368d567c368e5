"""Cases: the shapes to judge and measure at, and the inputs for each: the user's data or synthetic."""
