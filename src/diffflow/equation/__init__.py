"""What moves particles: the equation, named models as its coefficients, fields, schedules, exact laws and noise."""
