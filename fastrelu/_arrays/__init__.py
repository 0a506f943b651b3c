"""What kind of array an argument is, and the libraries whose arrays are taken."""
