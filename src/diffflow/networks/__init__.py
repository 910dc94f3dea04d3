"""Networks as the equation sees them: denoiser, discriminator, generator; backbones/ holds the nets themselves."""
