"""What every analysis is made of: options, questions, doses, studies, resumed runs and their records."""
