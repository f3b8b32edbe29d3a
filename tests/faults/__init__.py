"""What goes wrong outside of our code: disks, bits, other actors; and which row of the matrix each test proves."""
