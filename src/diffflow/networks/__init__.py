"""What a network is to the equation: denoiser, discriminator, generator; backbones/ holds the nets themselves."""
