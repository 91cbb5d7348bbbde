"""What the examples beside it share: files of users may import each other."""

MODULUS = 5
