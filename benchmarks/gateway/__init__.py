"""What Swell's gateway costs, beside nginx and the LLM routers people use, against one scripted upstream."""
