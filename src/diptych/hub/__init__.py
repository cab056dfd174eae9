"""Models by name: timm, torchvision, the Hugging Face Hub and its cache, folders in its layout, and addresses."""
