"""What a server does with many models and Pods on Kubernetes: adoption, turns, writes, memory."""
