"""What goes with a delivered model, and the forms in which it is sent on."""
