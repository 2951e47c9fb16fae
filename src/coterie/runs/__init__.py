"""A run from the user's side: trained, resumed, opened, evaluated; its teams loaded."""
