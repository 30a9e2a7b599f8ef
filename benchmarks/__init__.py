"""What a disc costs with mkiso, with the shell flow that it replaced, and at the least."""
