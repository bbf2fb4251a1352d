#include "safety.h"
