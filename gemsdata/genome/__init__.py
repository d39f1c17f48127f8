"""What a genome is: sequence files, the packed genome, the token vocabulary."""
